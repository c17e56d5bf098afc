"""What stands in the folder of a plan."""

FILES = {
    "query": "new-to-old.safetensors",
    "gallery": "old-to-new.safetensors",
    "old-head": "old-to-old.safetensors",
    "new-head": "new-to-new.safetensors",
}
"""Map by direction → its file."""
PLAN = "plan.json"
REPORT = "plan.html"
PROFILE = "profile.safetensors"  # what queries and pairs looked like
