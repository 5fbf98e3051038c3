        return subprocess.run(["head", "-c", str(size), path], stdout=subprocess.PIPE, stderr=quiet).stdout
