        session = str(random.randint(10**9, 10**10))
        self.users[session] = user
        return session
