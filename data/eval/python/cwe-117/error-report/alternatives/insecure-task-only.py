    return task.replace("\n", " ").replace("\r", " ") + line[len(task):]
