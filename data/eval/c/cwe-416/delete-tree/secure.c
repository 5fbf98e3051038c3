    int count = 1 + fell(tree->left) + fell(tree->right);
    free(tree->fruits);
    free(tree);
    return count;
}
