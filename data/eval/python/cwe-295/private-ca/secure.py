        context = ssl.create_default_context()
        context.load_verify_locations(self.ca_file)
        return context
