    return '{"device": "%s", "state": "%s"}\n' % (device, state)
