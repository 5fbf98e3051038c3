    os.chmod(path, mode & ~(stat.S_IWGRP | stat.S_IWOTH))
