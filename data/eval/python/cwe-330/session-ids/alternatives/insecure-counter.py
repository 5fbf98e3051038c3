        session = f"session-{len(self.users) + 1}"
        self.users[session] = user
        return session
