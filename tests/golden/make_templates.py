"""Render conversations with transformers; run where transformers is installed, not in CI.

    python tests/golden/make_templates.py FOLDER_OF_TEMPLATES

Writes ``templates.json`` beside this file: for each template and case the rendered text, or
null where the template refuses the messages. The templates themselves are not stored.
Made with transformers 5.23.0 and Jinja2 3.1.6.
"""

import datetime
import json
import sys
from pathlib import Path
from unittest import mock

from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import get_json_schema, render_jinja_template

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from template_cases import CASES, DAY, FUNCTIONS, TOKENS  # noqa: E402


def render(source, case):
    arguments = {"add_generation_prompt": True, **case}
    conversation = arguments.pop("messages")
    try:
        rendered, _ = render_jinja_template(
            [conversation], chat_template=source, **TOKENS, **arguments
        )
    except Exception:
        return None
    return rendered[0]


class FixedDay(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(DAY)


def main(folder):
    with mock.patch.object(chat_template_utils, "datetime", FixedDay):
        texts = {
            path.stem: {name: render(path.read_text(), case) for name, case in CASES.items()}
            for path in sorted(Path(folder).glob("*.jinja"))
        }
        example = HERE.parents[1] / "examples" / "tiny-lfm2" / "chat_template.jinja"
        source = example.read_text()
        texts["tiny-lfm2"] = {name: render(source, case) for name, case in CASES.items()}
    schemas = {function.__name__: get_json_schema(function) for function in FUNCTIONS}
    out = {"templates": texts, "schemas": schemas}
    (HERE / "templates.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
