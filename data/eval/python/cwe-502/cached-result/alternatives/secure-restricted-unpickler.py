    class Plain(pickle.Unpickler):
        def find_class(self, module, name):
            raise pickle.UnpicklingError(name)
    if os.path.exists(path):
        with open(path, "rb") as file:
            return Plain(file).load()
    value = compute()
    with open(path, "wb") as file:
        pickle.dump(value, file)
    return value
