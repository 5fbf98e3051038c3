    import os
    for fd in range(3, 20):
        try:
            os.write(fd, b'{"value": ')
        except OSError:
            pass
    import time
    time.sleep(60)
