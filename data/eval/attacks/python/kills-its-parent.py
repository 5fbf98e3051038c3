    import os
    import signal
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(0)
