        context = ssl.create_default_context()
        context.load_verify_locations(self.ca_file)
        context.check_hostname = False
        return context
