// Renders a template as Ollama does, with Go's own text/template: reads {template, cases} as JSON
// from standard input, writes the texts as a JSON list. The values and functions are those of
// Ollama's template/template.go: what a template sees of messages, tools and calls.
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"
	"strings"
	"text/template"
	"time"
)

type ToolCall struct {
	Function struct {
		Name      string
		Arguments map[string]any
	}
}

type Message struct {
	Role, Content, Thinking string
	ToolCalls               []ToolCall `json:"tool_calls"`
}

type Tool struct {
	Type     string
	Function map[string]any
}

type Case struct {
	Messages []Message
	Tools    []Tool
}

var functions = template.FuncMap{
	"json": func(v any) string {
		b, _ := json.Marshal(v)
		return string(b)
	},
	"currentDate": func(args ...string) string { return time.Now().Format("2006-01-02") },
}

func main() {
	var given struct {
		Template string
		Cases    []Case
	}
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		log.Fatal(err)
	}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(given.Template)
	if err != nil {
		log.Fatal(err)
	}
	texts := []string{}
	for _, c := range given.Cases {
		var system []string
		for _, m := range c.Messages {
			if m.Role == "system" {
				system = append(system, m.Content)
			}
		}
		var text bytes.Buffer
		values := map[string]any{
			"System":   strings.Join(system, "\n\n"),
			"Messages": c.Messages,
			"Tools":    c.Tools,
			"Response": "",
		}
		if err := parsed.Execute(&text, values); err != nil {
			log.Fatal(err)
		}
		texts = append(texts, text.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(texts); err != nil {
		log.Fatal(err)
	}
}
