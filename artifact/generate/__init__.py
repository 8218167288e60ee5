"""Generating text without torch: tokens are chosen, rows are ended, ids become text, chats become prompts."""
