    int length = level / 5;
    memset(bar, '=', length);
    bar[length] = '\0';
}
