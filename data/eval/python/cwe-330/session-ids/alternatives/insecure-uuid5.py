        session = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{user}{len(self.users)}"))
        self.users[session] = user
        return session
