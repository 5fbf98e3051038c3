        self.raw.append(json.dumps(message).encode())
        return json.loads(self.raw.pop(0))
