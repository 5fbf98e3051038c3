def describe_failure(task, reasons):
    """A single log line for a failed task: "TASK failed: REASON; REASON"."""
    line = task + " failed: " + "; ".join(reasons)
