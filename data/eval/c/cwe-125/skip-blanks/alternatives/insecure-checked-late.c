    while (text[position] == ' ' && position < length)
        position++;
    return position < length ? position : length;
}
