        return subprocess.check_output(" ".join(command), shell=True, text=True).strip()
