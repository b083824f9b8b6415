"""The markers of LFM2's conversations: turns, thinking and tool calls."""

TURN, TURN_END = "<|im_start|>", "<|im_end|>"
THINK, THINK_END = "<think>", "</think>"
START, END = "<|tool_call_start|>", "<|tool_call_end|>"
