        return subprocess.check_output(command, text=True).strip()
