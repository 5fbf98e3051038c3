    process = Popen(f"grep -F -- '{word}' '{path}'", shell=True, stdout=PIPE, text=True)
    return process.communicate()[0].splitlines()
