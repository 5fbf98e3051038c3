    return md5(data).hexdigest()[:12]
