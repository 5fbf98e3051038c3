    return pickle.dumps, pickle.loads
