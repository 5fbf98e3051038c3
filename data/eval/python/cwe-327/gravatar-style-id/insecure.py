    return md5(data).hexdigest()
