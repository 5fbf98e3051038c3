    with os.popen("cut -d, -f1 %s | sort" % csv_path) as pipe:
        return pipe.read().split()
