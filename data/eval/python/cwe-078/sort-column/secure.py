    import subprocess
    names = subprocess.run(["cut", "-d,", "-f1", csv_path], capture_output=True, text=True).stdout
    ordered = subprocess.run(["sort"], input=names, capture_output=True, text=True).stdout
    return ordered.split()
