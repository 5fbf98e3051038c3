    fprintf(log, message);
    fputc('\n', log);
}
