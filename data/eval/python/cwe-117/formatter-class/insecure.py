        return record.levelname + "\t" + message
