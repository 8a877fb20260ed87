"""Changes of a workspace as jobs: queued on disk, run one at a time in a process of their own."""
