        quoted = " ".join(f'"{word}"' for word in command)
        return subprocess.check_output(quoted, shell=True, text=True).strip()
