"""A language model behind an endpoint with OpenAI's chat completions: calls, limits, stored answers."""
