    strcpy(dst, label);
}

int main(void)
{
    return 0;
}
