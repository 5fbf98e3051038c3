        self.raw.append(pickle.dumps(message))
        return pickle.loads(self.raw.pop(0))
