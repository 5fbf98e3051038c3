    if os.system(f'mv -f "{draft}" "{destination}"') != 0:
        raise OSError(draft)
