"""Options that make a comparison take seconds."""

SMALL = ["--instances", "3", "--facts", "3", "--benign", "4", "--max-new-tokens", "6", "--no-figures"]
