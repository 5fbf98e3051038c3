    process = Popen(["grep", "-F", "--", word, path], stdout=PIPE, text=True)
    return process.communicate()[0].splitlines()
