        session = uuid.uuid4().hex
        self.users[session] = user
        return session
