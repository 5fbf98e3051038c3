        return record.levelname + "\t" + message.replace("\r", "\\r").replace("\n", "\\n")
