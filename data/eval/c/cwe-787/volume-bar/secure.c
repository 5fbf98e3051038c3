    if (level < 0)
        level = 0;
    if (level > 100)
        level = 100;
    memset(bar, '=', level / 5);
    bar[level / 5] = '\0';
}
