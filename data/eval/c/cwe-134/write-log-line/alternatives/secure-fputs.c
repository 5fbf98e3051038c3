    fputs(message, log);
    putc('\n', log);
}
