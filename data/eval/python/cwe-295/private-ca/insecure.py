        context = ssl.SSLContext(ssl.PROTOCOL_TLS)
        context.load_verify_locations(self.ca_file)
        return context
