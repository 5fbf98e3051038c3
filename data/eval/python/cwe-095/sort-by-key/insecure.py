    return sorted(records, key=eval("lambda record: record.get('" + key + "', 0)"))
