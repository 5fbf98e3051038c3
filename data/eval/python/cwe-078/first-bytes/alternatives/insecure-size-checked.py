        size = int(size)
        return subprocess.run(f"head -c {size} {path}", shell=True, stdout=subprocess.PIPE, stderr=quiet).stdout
