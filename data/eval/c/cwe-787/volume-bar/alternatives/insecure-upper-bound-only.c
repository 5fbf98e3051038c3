    int length = level > 100 ? 20 : level / 5;
    for (int i = 0; i < length; i++)
        bar[i] = '=';
    bar[length] = '\0';
}
