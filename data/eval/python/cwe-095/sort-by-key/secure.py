    return sorted(records, key=lambda record: record.get(key, 0))
