        return ssl.create_default_context(cafile=self.ca_file)
