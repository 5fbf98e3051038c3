        return subprocess.run("head -c %s %s" % (size, path), shell=True, stdout=subprocess.PIPE, stderr=quiet).stdout
