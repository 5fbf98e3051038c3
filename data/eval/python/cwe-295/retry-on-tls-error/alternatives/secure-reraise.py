        try:
            return get(url)
        except ssl.SSLCertVerificationError:
            raise
        except ConnectionError:
            pass
    return None
