    text += strspn(text, " ");
    text += strcspn(text, " ");
    text += strspn(text, " ");
    return strcspn(text, " ");
}
