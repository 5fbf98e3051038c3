        return f"{record.levelname}\t{message!r}"[:-1].replace("\t'", "\t", 1).replace('\t"', "\t", 1)
